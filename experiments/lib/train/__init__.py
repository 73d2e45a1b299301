"""Trains a language model on token stores, and goes on after a kill as if nothing had happened.

    config       what a training is: recipe, data, layout, result. Imports no JAX
    data_order   which window of which store is a row of a batch: a pure function of seed, step and row
    layout       the devices as a mesh; parameters, optimiser and batches spread over it
    optimizer    AdamW with warm-up, cosine decay and clipping
    train_step   one update, compiled once
    checkpoints  the state on disk: the last few and the best
    metrics      one line of JSON for each logged step
    train        the loop
    budget       how many steps fit into so many minutes

Resuming is exact because nothing of the loop's state lies outside the checkpoint: parameters and optimiser are in it,
and the data order follows from the step's number. On one device the loss curve of a training that was killed and run
again is bitwise that of one that never stopped.
"""
