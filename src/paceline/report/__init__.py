"""Where the model was unsure, as one HTML page for people: `paceline report`. docs/report.md defines every measure.

measures  what is known of each token          page      outputs and figures into template.html
places    drafts beside what was emitted       charts    geometry of the pictures
spans     areas of uncertainty                 evaluate  how well uncertainty foretells error
scoring   AUROC, risk and coverage             fields    the fields of a JSON answer, right or wrong
decided   decisions with their right answers, a page of their own (decisions.html)

Everything comes from what decoding computes anyway. Knows nothing of models: an output, or an `LLM`, is given.

    from paceline.report import page, uncertain_spans
"""

from paceline.report.decided import decisions_page
from paceline.report.page import page
from paceline.report.spans import UncertainSpan, uncertain_spans

__all__ = ["UncertainSpan", "decisions_page", "page", "uncertain_spans"]
