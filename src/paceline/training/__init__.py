"""Drafters trained on the user's own text: data made by the target, hidden states computed anew, never stored.

`data` has the target write, `features` reads its hidden states, `anchors` and `attending` lay blocks out, `losses` says
what is wanted, `loop` trains whatever a kind brings (`block`, `draft`), and `evaluate` measures it on held-out text.
"""
