"""`paceline doctor`: what drafting will bring on a user's own text, and what stands in its way.

questions   the user's text            prediction  acceptance, tau and speed-up with intervals
recording   what the target said       visit       all of that in order
costs       forwards timed in turns    facts       what a diagnosis rests on
replay      drafting, simulated        diagnosis   what is wrong, why, and what to change
machine     whether others are busy
"""
