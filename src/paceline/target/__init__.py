"""The target: a Hugging Face model behind the `Target` port, with bits that do not depend on its neighbours.

loading    a name, folder or model becomes a checked `HFTarget`
inspect    what a model is, and what is refused
numerics   linears and activations with stable bits
probe      which row counts give identical bits on this model
hf         the port itself, through the model's own forward
rows       one forward's rows as index tensors
attention  canonical attention over the page pool
pool       pages of keys and values
"""
