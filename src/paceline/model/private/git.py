"""GIT without a picture: attention as usual."""

from paceline.model.private.bert_like import self_attention

self_attention("git.GitSelfAttention")
