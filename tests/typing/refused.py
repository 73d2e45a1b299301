"""Checked by pyright, never run: each line that is commented ``# error`` must be one."""

from marin_trace import StepRef, deferred, output, step


def _train(path: str, steps: int = 1) -> int:
    return steps


train = deferred(_train)


@step(name="train/{name}")
def train_model(name: str, data: StepRef, *, steps: int = 1) -> StepRef:
    train(output(), "many")  # error
    train()  # error
    train(output(), stepz=3)  # error
    return train(output(), steps)


@step
def bare(name: str) -> StepRef:
    return train(output())


train_model("a")  # error
train_model(1, bare("x"))  # error
train_model("a", bare("x"), steps="many")  # error
train_model("a", bare("x"), 3)  # error
train_model("a", "gs://bucket/x")  # error
train_model.with_options(retries=2)(1, bare("x"))  # error
bare("x", retries=2)  # error
step(retrys=2)  # error
deferred(_train, identiy="x")  # error
entry: int = bare  # error
