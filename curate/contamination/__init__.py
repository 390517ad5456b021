"""Contamination: pool pairs that show, or say, what an item of an evaluation set does.

    items.py        a folder of images, a parquet or WebDataset shards -> items
    variants.py     an image -> the hashes and thumbnails that its copies in the pool may have
    embedding.py    images -> the embeddings that a scorer would have stored of them
    artifact.py     an evaluation set, prepared: all of that, made once
    cross.py        all pairs of hashes, one of each of two sets, within a Hamming radius
    match.py        samples -> matches_<name>, part by part

The pool keeps a hash and a thumbnail of each whole image, so what a crop, a mirror or an encoder
may have done is done to the items.
"""
