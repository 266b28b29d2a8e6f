"""Getting data out."""

__all__: list[str] = []
