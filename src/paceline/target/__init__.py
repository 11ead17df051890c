"""The target: a Hugging Face model behind the `Target` port, with bits that do not depend on its neighbours.

loading   a name, folder or model becomes a checked `HFTarget`        hf         the port itself
attention canonical attention over the page pool                      rows       one forward's rows, as index tensors
pool      pages of keys and values                                    numerics   linears and activations with stable bits
probe     which row counts give identical bits on this model
"""
