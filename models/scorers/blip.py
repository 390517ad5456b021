"""A BLIP checkpoint of transformers with an image-text matching head, by hub name or path.

The authors train the head with [ENC] in the place of [CLS]; their demo and transformers leave
[CLS]. `enc_token` chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from models.base import Image
from models.decode import over_white
from models.scorers.pairs import one_line
from models.weights import dtype_of, refuse_untrained
from schemas.configs import ItmScorer

if TYPE_CHECKING:
    from torch import Tensor


class Blip:
    """Model, tokenizer and image processor on the GPU where there is one."""

    def __init__(self, config: ItmScorer) -> None:
        import torch

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model, self.processor = load(config, self.device.type)
        self.enc_id = enc_id_of(config, self.model, self.processor) if config.enc_token else None

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """[CLS] ... [SEP] of each text, of any length."""
        if not texts:
            return []
        ids: list[list[int]] = self.processor.tokenizer(list(texts), verbose=False)["input_ids"]
        return ids

    def resized(self, image: Image) -> Tensor:
        """uint8 (3, s, s), the whole image squeezed to a square. Raises what the processor
        raises. Of any thread."""
        from PIL.Image import fromarray

        found = self.processor.image_processor(
            images=fromarray(over_white(image)),
            return_tensors="pt",
            do_rescale=False,
            do_normalize=False,
        )
        pixels: Tensor = found["pixel_values"][0]
        return pixels

    def match(
        self,
        images: Sequence[Tensor],
        of_image: Sequence[int],
        texts: Sequence[Sequence[int]],
        of_text: Sequence[int],
    ) -> Tensor:
        """Probability of a match, and cosine, of each pair: float32 (n, 2) on the device.

        images: as `resized` gives them; texts: as `token_ids`; of_image, of_text: each pair's
        places among these. It is what BlipForImageTextRetrieval does in two calls, with each image
        encoded once.
        """
        import torch
        from torch.nn.functional import normalize

        model, which, said = self.model, list(of_image), list(of_text)
        with torch.inference_mode():
            seen = model.vision_model(pixel_values=self._floats(images)).last_hidden_state
            ids, mask = self._padded(texts)
            alone = model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            image_emb = normalize(model.vision_proj(seen[:, 0]).float(), dim=-1)
            text_emb = normalize(model.text_proj(alone[:, 0]).float(), dim=-1)
            cosines = (image_emb[which] * text_emb[said]).sum(dim=-1)
            if self.enc_id is not None:
                ids[:, 0] = self.enc_id
            both = model.text_encoder(
                input_ids=ids[said], attention_mask=mask[said], encoder_hidden_states=seen[which]
            ).last_hidden_state
            probs = model.itm_head(both[:, 0]).float().softmax(dim=-1)[:, 1]
            return torch.stack([probs, cosines], dim=1)

    def _floats(self, images: Sequence[Tensor]) -> Tensor:
        """The processor's second half, on the device: (n, 3, s, s)."""
        import torch

        pixels = torch.stack(list(images)).to(self.device)
        found = self.processor.image_processor(
            images=list(pixels), return_tensors="pt", do_resize=False, do_convert_rgb=False
        )
        floats: Tensor = found["pixel_values"].to(self.device, self.model.dtype)
        return floats

    def _padded(self, texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Ids and attention mask, int64 (n, longest)."""
        padded = self.processor.tokenizer.pad(
            {"input_ids": [list(ids) for ids in texts]}, return_tensors="pt"
        ).to(self.device)
        return padded["input_ids"], padded["attention_mask"]


def load(config: ItmScorer, device: str) -> tuple[Any, Any]:
    """Model in eval mode and its processor. Raises ValueError with the name and the remedy; never
    gives untrained weights, as transformers would for a BLIP without a matching head.
    """
    from transformers import BlipForImageTextRetrieval, BlipProcessor

    dtype = dtype_of(config.precision, device)
    try:
        model, info = BlipForImageTextRetrieval.from_pretrained(
            config.model, dtype=dtype, output_loading_info=True
        )
        processor = BlipProcessor.from_pretrained(config.model)
        refuse_untrained(model, info)
        longest = model.config.text_config.max_position_embeddings
        if config.max_tokens > longest:
            raise ValueError(f"max_tokens {config.max_tokens} is more than its {longest}")
    except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
        raise ValueError(
            f"scorer {config.name}: model {config.model} cannot be loaded ({one_line(error)}); "
            "it must be a BLIP with a matching head, such as Salesforce/blip-itm-base-coco; with "
            "no hub in reach give the path of a folder that `save_pretrained` wrote, with the "
            "model and its processor"
        ) from error
    return model.to(device).eval(), processor


def enc_id_of(config: ItmScorer, model: Any, processor: Any) -> int:
    """BLIP's [ENC]: the tokenizer's, else the last row of a table that is larger than the
    tokenizer's (checkpoints that were converted have the row, their tokenizers not the word).
    """
    known = processor.tokenizer.get_vocab()
    rows = int(model.config.text_config.vocab_size)
    if "[ENC]" in known:
        return int(known["[ENC]"])
    if max(known.values()) < rows - 1:
        return rows - 1
    raise ValueError(
        f"scorer {config.name}: model {config.model} has no [ENC] token; set enc_token: false"
    )
