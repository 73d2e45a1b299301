"""The intermediate representation: refs, graphs, and what is done to them. No I/O."""
