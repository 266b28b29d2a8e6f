"""Tools."""

__all__: list[str] = []
