"""Choosing among texts by a model's probabilities, or abstaining: `LLM.decide`, and how far it may be relied on.

choices   what may be said for each choice, and the probability of it      decision  what was decided, and why
binomial  bounds on a share of errors                                      calibration  temperature and threshold
learning  both from labelled examples, with a promise that is proved

Knows nothing of models: log-probabilities are given.
"""

from paceline.deciding.calibration import Calibration
from paceline.deciding.decision import Decision

__all__ = ["Calibration", "Decision"]
