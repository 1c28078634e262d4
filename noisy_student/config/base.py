"""The base of every configuration model: frozen, strict about unknown keys."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen group of settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    def refuse_unused(self, choice: str, used_by: Mapping[str, str]) -> None:
        """Raise :class:`ValueError` where a setting is changed that belongs to another value of the setting ``choice``.

        ``used_by`` maps a setting to the value of ``choice`` that it belongs to.
        """
        chosen = getattr(self, choice)
        for key, owner in used_by.items():
            if chosen != owner and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key}: does nothing with {choice}: {chosen}; it is a setting of {owner}")
