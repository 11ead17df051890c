"""A head goes on learning from what its target says, and never drafts with what has not been shown to be better.

service     all tenants that a head learns from, within what learning may take
supervisor  one tenant: from what is observed to what may draft
learner     small steps on anchors, new and old
anchors     what is learnt from, and how it is kept
scoring     what a transition would have drafted at them
weights     what is learnt, and whether it is still what it was
cases       requests, as two heads are compared by them
gate        whether a candidate's weights may draft
betting     wealth of a bet that one head beats another, on paired differences
detector    whether weights that draft have become worse than those before them
snapshots   what is kept on disk
allowance   what learning may take
"""

EVENTS = ("candidates", "promotions", "rollbacks", "restorations")  # that are counted
