"""Megatron BERT as a decoder: attention as usual."""

from paceline.model.private.bert_like import self_attention

self_attention("megatron_bert.MegatronBertSelfAttention")
