"""How much is run: each profile says how many examples a check gets and where their seeds come from."""

from __future__ import annotations

import msgspec

from twinspike.errors import refuse


class Profile(msgspec.Struct, frozen=True):
    """One profile."""

    name: str
    cover: float
    """Share of the covering examples (every config, shape and family at least once) that is run, in (0, 1]."""
    draws: int
    """Examples that Hypothesis draws on top."""
    fresh: bool
    """Whether draws may leave the configs and shapes of the cover, each of which a compiler must translate."""
    derandomized: bool
    """Whether draws are the same in every run."""
    both_modes: bool
    """Whether an eager session is held against a compiled one, which starts another compiler."""
    limit: float
    """Seconds that a check may take unless the user says otherwise: far above what a compiler needs, since it is for hangs."""


PROFILES: dict[str, Profile] = {
    p.name: p
    for p in (
        Profile("smoke", cover=0.1, draws=0, fresh=False, derandomized=True, both_modes=False, limit=600.0),
        Profile("ci", cover=1.0, draws=12, fresh=False, derandomized=True, both_modes=True, limit=1800.0),
        Profile("deep", cover=1.0, draws=500, fresh=True, derandomized=False, both_modes=True, limit=36000.0),
    )
}


def profile(name: str) -> Profile:
    """The profile of that name; SpecError if there is none."""
    if name not in PROFILES:
        raise refuse("--profile", expected=f"one of {', '.join(PROFILES)}", got=name)
    return PROFILES[name]
