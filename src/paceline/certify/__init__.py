"""`paceline certify`: the promise checked on the user's own machine, model and prompts.

plan              what is compared, and its JSON
bytes             plain against speculative decoding, tokens and logit bits
ways              the ways to decode that must not make a difference
slow_machine      the pacer where drafts pay, so that pacing is exercised
divergence        the first difference explained: arithmetic, law or state
reference         transformers in fp32 with its own logits processors
law               plain decoding against that reference
betting           an anytime-valid test of tokens against probabilities
controls          faulty engines on which the checks must fail
attention_faults  two of them: attention that adds up keys in slot order, or reads others' pages
control           a planted fault, and whether a check found it
certificate       what was found, and its JSON
page, rendering   the same as one HTML file
files             hashes of model files
run               the order of it all
servers/          the same question about two servers
"""
