"""Tiny text encoders with random weights, made here, so that no test needs a hub."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5Model,
)

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
PIECES = (*"abcdefghijklmnopqrstuvwxyz", *(f"##{x}" for x in "abcdefghijklmnopqrstuvwxyz"), "good", "bad", "##ly")


def write_bert(folder: Path, positions=24, width=8) -> Path:
    """A BERT whose tokenizer knows letters, "good", "bad" and "ly"; returns the folder."""
    vocabulary = {piece: number for number, piece in enumerate((*SPECIAL, *PIECES))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=positions,
    )
    _save(folder, tokenizer, BertModel, config, unk_token="[UNK]", pad_token="[PAD]")
    return folder


def write_roberta(folder: Path) -> Path:
    """A RoBERTa over bytes, whose tokenizer tells words by the space before them."""
    bytes_of = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate(("<s>", "<pad>", "</s>", "<unk>", *bytes_of))}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    config = RobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=40,
    )
    _save(folder, tokenizer, RobertaModel, config, unk_token="<unk>", pad_token="<pad>")
    return folder


def write_t5(folder: Path) -> Path:
    """A T5, which also decodes."""
    vocabulary = {piece: number for number, piece in enumerate((*SPECIAL, *PIECES))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    config = T5Config(vocab_size=len(vocabulary), d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    _save(folder, tokenizer, T5Model, config, unk_token="[UNK]", pad_token="[PAD]")
    return folder


def _save(folder, tokenizer, network, config, **special):
    folder.mkdir(parents=True, exist_ok=True)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network(config).save_pretrained(folder)
