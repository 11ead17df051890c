"""RemBERT as a decoder: attention as usual."""

from paceline.model.private.bert_like import self_attention

self_attention("rembert.RemBertSelfAttention")
