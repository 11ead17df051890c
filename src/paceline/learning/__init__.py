"""A head goes on learning from what its target says, and never drafts with what has not been shown to be better.

betting     wealth of a bet that one head beats another, on paired differences
gate        whether a candidate's weights may draft
detector    whether weights that draft have become worse than those before them
"""
