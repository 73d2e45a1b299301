"""Conversations of many formats, as one."""

from dataclasses import dataclass

from marin.utilities.jobs import finish


@dataclass(frozen=True)
class TransformConversationConfig:
    """One data set of conversations."""

    input_path: str
    output_path: str
    adapter: str
    subsets: list[str]
    splits: list[str]


def transform_conversation(config: TransformConversationConfig) -> None:
    finish("transform_conversation", config)
