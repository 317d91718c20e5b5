"""The families of this room that are not grids, as rows (name, class, settings, what it is, paper)."""

from __future__ import annotations

from typing import Any

Row = tuple[str, str, dict[str, Any], str, str]

_RL2 = "Duan et al. 2016 (RL²)"
_AD = "Laskin et al. 2023 (Algorithm Distillation)"
_DPT = "Lee et al. 2023 (DPT)"
_TANG = "Tang et al. 2021"
_DICE = "Farquhar et al. 2019 (Loaded DiCE)"
_AMRL = "Beck et al. 2020 (AMRL)"
_SPLAGGER = "Beck et al. 2024 (SplAgger)"
_HYPER = "Beck et al. 2023 (Recurrent Hypernetworks)"
_VARIBAD = "Zintgraf et al. 2020 (VariBAD)"
_MAML = "Finn et al. 2017 (MAML)"
_CONSISTENCY = "Xiong et al. 2021 (Practical Consistency)"

ROWS: tuple[Row, ...] = (
    ("bandit", "bandits:Bandit", {"n_arms": 10}, "10 Bernoulli arms, means U(0, 1)", _RL2),
    ("bandit-5", "bandits:Bandit", {"n_arms": 5}, "5 Bernoulli arms", _RL2),
    ("bandit-50", "bandits:Bandit", {"n_arms": 50}, "50 Bernoulli arms", _RL2),
    (
        "bandit-gaussian",
        "bandits:Bandit",
        {"n_arms": 5, "reward": "gaussian", "std": 0.3},
        "5 Gaussian arms, means U(0, 1), std 0.3",
        _DPT,
    ),
    (
        "bandit-adversarial",
        "bandits:Bandit",
        {"n_arms": 10, "bias": "odd-even"},
        "10 Bernoulli arms; odd ones pay in 95 % of tasks (ood: the even ones)",
        _AD,
    ),
    ("mdp", "tabular:TabularMDP", {}, "random MDPs, 10 states × 5 actions, 10 steps", _RL2),
    (
        "mdp-tang",
        "tabular:TabularMDP",
        {
            "n_states": 20,
            "n_actions": 5,
            "horizon": 20,
            "concentration": 0.001,
            "rewards": "uniform",
            "reward_noise": 0.0,
            "discount": 0.8,
        },
        "nearly deterministic MDPs, 20 states × 5 actions",
        _TANG,
    ),
    (
        "mdp-dice",
        "tabular:TabularMDP",
        {
            "n_states": 5,
            "n_actions": 4,
            "horizon": 50,
            "rewards": "state",
            "reward_noise": 0.0,
            "start": "uniform",
            "discount": 0.95,
        },
        "small MDPs for higher derivatives, 5 states × 4 actions",
        _DICE,
    ),
    ("t-l", "tmaze:TMaze", {"cues": (0,), "coins": "none"}, "corridor of 100 cells, cue in the first", _AMRL),
    ("t-ln", "tmaze:TMaze", {"cues": (0,)}, "T-L with a coin at every step", _AMRL),
    ("t-lo", "tmaze:TMaze", {"cues": (0, 98), "rule": "up-then-down", "coins": "none"}, "order of two cues", _AMRL),
    ("t-lso", "tmaze:TMaze", {"cues": (0, 2), "rule": "up-then-down", "matching": True}, "order, and coins", _AMRL),
    ("t-ln-p1", "tmaze:TMaze", {"cues": (1,)}, "T-LN with the cue in the second cell", _SPLAGGER),
    ("t-agree", "tmaze:TMaze", {"cues": (1, 50), "rule": "agree"}, "do two cues agree? then down", _SPLAGGER),
    ("t-latent", "tmaze:TMaze", {"cues": (), "coins": "latent"}, "no cue: is the coin biased? then up", _SPLAGGER),
    ("t-ls-p1", "tmaze:TMaze", {"cues": (1,), "matching": True}, "each coin must be matched to move on", _SPLAGGER),
    ("point-nav", "pointnav:PointNav", {}, "2D navigation to a goal on the unit circle, −distance", _CONSISTENCY),
    (
        "point-nav-square",
        "pointnav:PointNav",
        {"goals": "square", "action_limit": 0.1, "step_size": 1.0, "stop_within": 0.01},
        "2D navigation to a goal in a square, ends on it",
        _MAML,
    ),
    ("point-nav-sparse", "pointnav:PointNav", {"reward": "sparse"}, "2D navigation, paid near the goal", _CONSISTENCY),
    (
        "point-nav-arcs",
        "pointnav:PointNav",
        {"goals": "right", "ood_goals": "left"},
        "2D navigation, goals on the right arc; in ood on the left one",
        _CONSISTENCY,
    ),
    (
        "sparse-point",
        "pointnav:PointNav",
        {"goals": "upper", "reward": "sparse", "action_limit": 0.05, "step_size": 1.0},
        "sparse point robot, goals on the upper half circle, moves of 0.05",
        _HYPER,
    ),
    (
        "sparse-point-varibad",
        "pointnav:PointNav",
        {"goals": "upper", "reward": "sparse"},
        "sparse point robot, goals on the upper half circle, moves of 0.1",
        _VARIBAD,
    ),
    ("semicircle", "pointnav:Semicircle", {}, "a cart that steers to a hidden point of a half circle", _HYPER),
)
