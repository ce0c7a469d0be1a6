"""The common part of the translation tasks: fairseq's Transformer, dictionary, loss and batches.

A task defines architecture, data and recipe. All other parts, from the token batches to BLEU, are
the same for the small corpus and for WMT14, and use fairseq's code wherever it exists.
"""

from __future__ import annotations

import argparse
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from gapbench.compat.fairseq_import import INSTALL, load_fairseq
from gapbench.errors import NotInstalled, UserError
from gapbench.tasks.task import Metric, Recipe, Split, Task
from gapbench.tasks.translation_batches import eval_batches, share_of, token_batches
from gapbench.tasks.translation_scoring import Search, score, signatures, translate

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Sample = dict[str, Any]  # a batch as fairseq's LanguagePairDataset collates it
_PRUNABLE = re.compile(r"\.(?:[qkv]_proj|out_proj|fc1|fc2)\.weight$")


@dataclass(frozen=True)
class Text:
    """One split in fairseq's form.

    Attributes:
        pairs: a fairseq LanguagePairDataset.
        references: the untokenised target sentences, for BLEU.
    """

    pairs: Any
    references: list[str]


class Translation(Task):
    """A translation task; the subclass loads its texts and dictionary.

    Attributes:
        architecture: name of a fairseq architecture of the model "transformer".
        architecture_options: values that override the architecture's values.
        vocabulary: size of the joint dictionary, including fairseq's four special symbols.
        sentence: tokens per side of the sentence for which costs are counted.
        searches: the beam search of each split for BLEU.
    """

    metric = Metric("bleu", unit="BLEU", margin=0.5)
    architecture: ClassVar[str]
    architecture_options: Mapping[str, Any]
    vocabulary: int
    sentence: ClassVar[int]
    searches: Mapping[Split, Search]

    def __init__(self) -> None:
        self._texts: dict[Split, Text] = {}
        self._dictionary: Any = None
        self._device: torch.device | None = None

    @classmethod
    def require(cls) -> None:
        """Check that fairseq and the other packages of these tasks are installed.

        Raises:
            NotInstalled: if a package is missing; the message says how to install the packages.
        """
        load_fairseq()
        for package in ("sacrebleu", "sentencepiece"):
            if find_spec(package) is None:
                raise NotInstalled(f"{package} is not installed; get fairseq with: {INSTALL}")

    @abstractmethod
    def read(self) -> tuple[dict[Split, Text], Any]:
        """Return the texts and the fairseq dictionary that encodes the texts.

        Raises:
            UserError: if data are missing or damaged.
        """

    def load(self, device: torch.device) -> None:
        """Read all splits.

        Raises:
            UserError: if data are missing or damaged, or do not match the model's vocabulary.
        """
        self.require()
        texts, dictionary = self.read()
        if len(dictionary) != self.vocabulary:
            raise UserError(
                f"task {self.name}: the dictionary has {len(dictionary)} symbols, but the model "
                f"is built for {self.vocabulary}: set task_options.vocabulary to {len(dictionary)}"
            )
        self._texts, self._dictionary, self._device = texts, dictionary, device

    def build_model(self) -> nn.Module:
        """Return a new Transformer; without data, numbers stand for the dictionary's symbols."""
        import torch

        fairseq = load_fairseq()
        arguments = argparse.Namespace(**self.architecture_options)
        fairseq.models.ARCH_CONFIG_REGISTRY[self.architecture](arguments)
        transformer = fairseq.models.transformer.TransformerModel
        model: nn.Module = transformer.build_model(arguments, self._fairseq_task())
        _clear_scratch(model)
        model.register_load_state_dict_post_hook(_clear_scratch)  # type: ignore[no-untyped-call]
        return model.to(torch.empty(0).device)  # buffers made on the CPU under a device context

    def checkpoint(self, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return a checkpoint in fairseq-train's form, without the entries for training."""
        arguments = argparse.Namespace(
            arch=self.architecture,
            task="translation",
            source_lang="en",
            target_lang="de",
            **self.architecture_options,
        )
        history = {
            "criterion_name": "LabelSmoothedCrossEntropyCriterion",
            "optimizer_name": "FairseqAdam",
            "lr_scheduler_state": {},
            "num_updates": 0,
        }
        return {
            "args": arguments,
            "model": dict(state),
            "optimizer_history": [history],
            "extra_state": {"train_iterator": None},
        }

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return source tokens, source lengths and previous target tokens of one sentence."""
        import torch

        tokens = torch.full((1, self.sentence), 5)
        return tokens, torch.full((1,), self.sentence), tokens.clone()

    def prunable(self, model: nn.Module) -> tuple[str, ...]:
        """Return the attention projections and feed-forward matrices, in model order."""
        return tuple(name for name, _ in model.named_parameters() if _PRUNABLE.search(name))

    def partition_patterns(self, partitions: int) -> tuple[tuple[str, ...], ...] | None:
        """Return consecutive groups of equally many blocks, encoder blocks before decoder blocks.

        Example for 6 + 6 blocks and 3 partitions: encoder 0-3; encoder 4-5 and decoder 0-1; decoder
        2-5.
        """
        options = self.architecture_options
        blocks = [
            f"{side}.layers.{index}.*"
            for side in ("encoder", "decoder")
            for index in range(options.get(f"{side}_layers", 6))
        ]
        size, rest = divmod(len(blocks), partitions)
        if rest:
            return None
        return tuple(tuple(blocks[i : i + size]) for i in range(0, len(blocks), size))

    def steps_per_epoch(self, batch_size: int, world: int = 1) -> int:
        """Return the number of training batches of at most `batch_size` tokens per side."""
        return len(token_batches(self._text("train").pairs, 0, batch_size))

    def batches(
        self, seed: int, *, batch_size: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[Sample]:
        """Yield this rank's share of batches of at most `batch_size` tokens per side.

        A share's `ntokens` is the number of target tokens in the whole batch divided by `world`, so
        that the mean of the ranks' losses is the loss of the whole batch.
        """
        pairs = self._text("train").pairs
        for batch in token_batches(pairs, seed, batch_size)[start:]:
            yield self._to_device(share_of(pairs, batch, rank, world))

    def loss(self, model: nn.Module, batch: Sample, recipe: Recipe) -> Tensor:
        """Return fairseq's label-smoothed cross-entropy per target token."""
        criteria = load_fairseq().criterions.label_smoothed_cross_entropy
        criterion = criteria.LabelSmoothedCrossEntropyCriterion(
            self._fairseq_task(), sentence_avg=False, label_smoothing=recipe.label_smoothing
        )
        output = model(**batch["net_input"])
        total: Tensor = criterion.compute_loss(getattr(model, "module", model), output, batch)[0]
        tokens: float = batch["ntokens"]
        return total / tokens

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return BLEU of the translations, and `loss` in nats per target token, not smoothed."""
        import torch

        text, search = self._text(split), self.searches[split]
        was_training = model.training
        model.eval()
        generator = self._fairseq_task().build_generator([model], search.arguments())
        loss, tokens = 0.0, 0
        found: dict[int, str] = {}
        with torch.no_grad():
            for sample in map(self._to_device, eval_batches(text.pairs, search.sentences)):
                loss += self._log_loss(model, sample)
                tokens += sample["ntokens"]
                found.update(translate(generator, model, sample, self._dictionary))
        model.train(was_training)
        hypotheses = [found[index] for index in sorted(found)]
        references = [text.references[index] for index in sorted(found)]
        return {**score(hypotheses, references), "loss": loss / tokens}

    def signatures(self) -> dict[str, str]:
        """Return sacreBLEU's signatures and the search options of each split."""
        searches = {f"{split}/search": str(search) for split, search in self.searches.items()}
        return {**signatures(), **searches}

    def _log_loss(self, model: nn.Module, sample: Sample) -> float:
        bare: Any = model
        log_probabilities = bare.get_normalized_probs(model(**sample["net_input"]), log_probs=True)
        target = sample["target"]
        picked = log_probabilities.gather(-1, target.unsqueeze(-1)).squeeze(-1)
        return -float(picked[target != self._dictionary.pad()].double().sum())

    def _text(self, split: Split) -> Text:
        if not self._texts:
            raise UserError(f"task {self.name}: its data is not loaded")
        return self._texts[split]

    def _to_device(self, sample: Sample) -> Sample:
        move = load_fairseq().utils.apply_to_sample
        moved: Sample = move(lambda tensor: tensor.to(self._device), sample)
        return moved

    def _fairseq_task(self) -> Any:
        translation = load_fairseq().tasks.translation
        dictionary = self._dictionary or numbered_dictionary(self.vocabulary)
        return translation.TranslationTask(translation.TranslationConfig(), dictionary, dictionary)


def _clear_scratch(model: nn.Module, _keys: object = None) -> None:
    """Zero the buffers that fairseq leaves uninitialised, after building and after loading.

    fairseq reads only the buffers' dtype and device, but equal models must have equal states.
    """
    for name, buffer in model.named_buffers():
        if name.endswith("_float_tensor"):
            buffer.zero_()


def numbered_dictionary(size: int) -> Any:
    """Return a fairseq dictionary of `size` symbols that are numbers."""
    dictionary = load_fairseq().data.Dictionary()
    for index in range(len(dictionary), size):
        dictionary.add_symbol(str(index))
    return dictionary
