"""The recipes of ``lumefield edit``. A new one is one file with settings and a function, a row."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Union

from lumefield.apps._edit_clean import Clean, clean
from lumefield.apps._edit_components import Components, components
from lumefield.apps._edit_crop import Crop, crop
from lumefield.apps._edit_decimate import Decimate, decimate
from lumefield.apps._edit_merge import Merge, merge
from lumefield.apps._edit_recolour import Recolour, recolour
from lumefield.apps._edit_scene import Outcome, Subject, Tell
from lumefield.apps._edit_transform import Transform, transform

Recipe = Callable[[Subject, Any, Tell], Outcome]

RECIPES: dict[type, Recipe] = {
    Clean: clean,
    Crop: crop,
    Transform: transform,
    Merge: merge,
    Decimate: decimate,
    Recolour: recolour,
    Components: components,
}
"""Settings -> what does it; the name of the recipe is that of its settings, in lower case."""

if TYPE_CHECKING:
    Wish = Any
else:
    Wish = Union[tuple(RECIPES)]  # noqa: UP007


def name_of(wish: object) -> str:
    """What a person types."""
    return type(wish).__name__.lower()
