"""A head that is fitted at once: the logistic regression that scikit-learn finds on the same vectors."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from cutaway.errors import ConfigError
from cutaway.models import Model, build_network, network_of_size
from cutaway.tasks import TaskConfig
from cutaway.tasks.probe import PRIOR, fit_head, logistic_head
from cutaway.tasks.start import with_head
from cutaway.tokenizers import train_tokenizer


@pytest.mark.parametrize("several", [False, True])
def test_it_is_scikit_learns(several: bool):
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(200, 5)) * np.array([1, 2, 0.5, 3, 1]) + 1
    logits = vectors @ draw.normal(size=(5, 3))
    true = (logits > 0).astype(np.float32) if several else (logits + draw.gumbel(size=(200, 3))).argmax(1)
    matrix, bias = logistic_head(torch.from_numpy(vectors), torch.from_numpy(true), 3)
    ours = torch.from_numpy(vectors) @ matrix.T + bias
    scaled = (vectors - vectors.mean(0)) / vectors.std(0)  # the prior is of channels of one spread
    how = {"C": 1 / (PRIOR * len(vectors)), "tol": 1e-8, "max_iter": 10_000}
    if several:
        peers = [LogisticRegression(**how).fit(scaled, true[:, n]).predict_proba(scaled)[:, 1] for n in range(3)]
        assert ours.sigmoid().numpy() == pytest.approx(np.stack(peers, axis=1), abs=1e-3)
    else:
        peer = LogisticRegression(**how).fit(scaled, true).predict_proba(scaled)
        assert ours.softmax(-1).numpy() == pytest.approx(peer, abs=1e-3)


def test_a_network_answers_by_it_and_its_body_stays():
    texts = ["a good film", "a bad film", "good music", "bad music", "good", "so bad"]
    tokenizer = train_tokenizer(texts, "bpe", 280)
    torch.manual_seed(0)
    config = network_of_size("encoder", 1, tokenizer.vocab_size, context=16, head="embedding", pooling="mean")
    body = Model(build_network(config), tokenizer)
    model = with_head(body, {"head": "sequence_classification", "labels": ("bad", "good"), "head_activation": "none"})
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    ids = [np.array(tokenizer.encode(text)) for text in texts]
    targets = [np.array([int("good" in text)]) for text in texts]
    fit_head(model, ids, targets, bf16=False)
    said = [int(model.logits(row.tolist())[0].argmax()) for row in ids]
    assert said == [int(target[0]) for target in targets]
    changed = {name for name, tensor in model.network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"head.out.weight", "head.out.bias"}


def test_it_needs_a_checkpoint():
    with pytest.raises(ConfigError, match="a probe reads a checkpoint"):
        TaskConfig("classify", "x", "y", probe="only")
