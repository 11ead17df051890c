"""The target: a Hugging Face model behind the `Target` port, with bits that do not depend on its neighbours.

loading    a name, folder or model becomes a checked `HFTarget`
inspect    what a model is, and what is refused
numerics   linears and activations with stable bits
probe      which row counts give identical bits on this model
hf         the port itself
forward    a forward over rows, by the model's modules or from a recording of them
linears    what replaces the model's linears
interface  the attention that the model's layers call
rows       one forward's rows as index tensors
frames     the same rows for the native kernels
attention  batch-invariant attention over the page pool
pool       pages of keys and values
"""
