"""How a draft model grows its trees: level by level, in Python or in one native call; the rules are the same.

A level's nodes are the children of the best nodes of the last: the top-k of `log q + G` (see drafters/model.py).
"""

from paceline.drafters._draft_model.fed import Asked, Fed, Levels, Shape, fed_path
from paceline.drafters._draft_model.foreign import ForeignLevels, Words
from paceline.drafters._draft_model.modules import FedNodes, Growth, ModuleLevels
from paceline.drafters._draft_model.native import NativeLevels

__all__ = [
    "Asked",
    "Fed",
    "FedNodes",
    "ForeignLevels",
    "Growth",
    "Levels",
    "ModuleLevels",
    "NativeLevels",
    "Shape",
    "Words",
    "fed_path",
]
