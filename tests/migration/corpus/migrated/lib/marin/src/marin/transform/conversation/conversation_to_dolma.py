"""Conversations as plain documents."""

from dataclasses import dataclass

from marin.utilities.jobs import finish


@dataclass
class ConversationToDolmaConfig:
    """Where conversations lie, and where documents go."""

    input_path: str
    output_path: str
    include_roles: bool = True


def convert_conversation_to_dolma(config: ConversationToDolmaConfig) -> None:
    finish("convert_conversation_to_dolma", config)
