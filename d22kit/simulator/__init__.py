"""A faithful local stand-in of the service, with a synthetic lender behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from d22kit.errors import ConfigError
from d22kit.simulator.scenario import HOLIDAYS, INCIDENTS, NOW, ZONE, Incident

if TYPE_CHECKING:
    from d22kit.simulator.lender import generate
    from d22kit.simulator.server import refuse
    from d22kit.simulator.simulation import Simulation, Tick, serve, simulate

__all__ = [
    "HOLIDAYS",
    "INCIDENTS",
    "NOW",
    "ZONE",
    "Incident",
    "Simulation",
    "Tick",
    "generate",
    "refuse",
    "serve",
    "simulate",
]


def __getattr__(name: str) -> Any:
    """Import the running parts when they are asked for: they need the `demo` extra."""
    if name not in __all__:
        raise AttributeError(f"module 'd22kit.simulator' has no attribute {name!r}")
    try:
        from d22kit.simulator import lender, server, simulation
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The simulator needs {error.name}, which is not installed. It comes with the demo extra: "
            "pip install 'd22kit[demo]'."
        ) from error
    return next(getattr(part, name) for part in (lender, server, simulation) if hasattr(part, name))
