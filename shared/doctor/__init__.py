"""Whether a run will work, found out before one is needed: what the identity may do where, what stands against it, what
the app reaches, its store, schedule, versions and clock. Nothing is changed anywhere, and no node is asked.

What is asked for is in `examining` (and `reaching`), which is imported by who asks: it takes the SDK with it. What the
answers mean is in the other modules, which are pure.
"""

from shared.doctor.checks import Area, Check, Level, verdict

__all__ = ["Area", "Check", "Level", "verdict"]
