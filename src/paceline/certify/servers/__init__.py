"""`paceline certify --baseline URL --candidate URL`: two servers with OpenAI's API compared.

plan         what is compared
asking       a server that is asked: replies, repeated tries, failures
greedy       texts at temperature 0, and where they part
sampled      a two-sample test of short samples, and what it would find
trials       both, with their controls, asked of the servers
certificate  what was found: its verdict, its JSON, its page
run          the order of it all
"""
