"""All families by the name that ``--method`` takes."""

from lumefield.codecs.families._coin import COIN
from lumefield.codecs.families._coinpp import COINPP
from lumefield.codecs.families._enerv import ENERV
from lumefield.codecs.families._family import Family
from lumefield.codecs.families._hinerv import HINERV
from lumefield.codecs.families._hnerv import HNERV
from lumefield.codecs.families._nerv import NERV
from lumefield.codecs.families._psnerv import PSNERV
from lumefield.codecs.families._strumpler import STRUMPLER

METHODS: dict[str, Family] = {
    "coin": COIN,
    "coin++": COINPP,
    "strumpler": STRUMPLER,
    "nerv": NERV,
    "e-nerv": ENERV,
    "ps-nerv": PSNERV,
    "hnerv": HNERV,
    "hinerv": HINERV,
}


def by_identity(identity: int) -> Family | None:
    """The family of a number in a file, or None."""
    return next((f for f in METHODS.values() if f.identity == identity), None)
