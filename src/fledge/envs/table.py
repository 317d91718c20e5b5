"""The table of families: every environment by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class FamilyRow:
    """One named family: where its class lives, the settings that make the variant, and what it is."""

    target: str
    """`module:Class`, imported only when it is made."""
    about: str
    paper: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_GRIDNAV = "fledge.envs.gridnav:GridNav"
_DARKROOM = "fledge.envs.darkroom:DarkRoom"
_KEYDOOR = "fledge.envs.keydoor:KeyToDoor"
_HALL = "fledge.envs.hall:Hall"
_MINEMAZE = "fledge.envs.minemaze:MineMaze"
_PLANNING = "fledge.envs.planning:Planning"

_VARIBAD = "Zintgraf et al. 2020 (VariBAD)"
_HYPER = "Beck et al. 2023 (Recurrent hypernetworks)"
_AD = "Laskin et al. 2022 (Algorithm Distillation)"
_AD_EPS = "Zisman et al. 2024 (AD-eps)"
_DPT = "Lee et al. 2023 (Decision-Pretrained Transformer)"
_DICP = "Son et al. 2025 (DICP)"
_RADT = "Schmied et al. 2024 (RA-DT)"

_RADT_ROOM = {"start": "corner", "moves": "dpt", "held_out": 0.2}
_PERMUTED = {"permuted": True, "moves": "dpt", "held_out": 0.1}

_META = "Vuorio et al. 2022, bias-variance of meta-gradients"
_RL2 = "Duan et al. 2016 (RL²)"
_TANG = "Tang et al. 2021"
_DICE = "Farquhar et al. 2019 (Loaded DiCE)"
_AMRL = "Beck et al. 2020 (AMRL)"
_SPLAGGER = "Beck et al. 2024 (SplAgger)"
_MAML = "Finn et al. 2017 (MAML)"
_PROMP = "Rothfuss et al. 2019 (ProMP)"
_CONSISTENCY = "Xiong et al. 2021 (Practical Consistency)"

FAMILIES: dict[str, FamilyRow] = {
    # gridnav.py
    "gridnav": FamilyRow(_GRIDNAV, "5×5 grid, hidden goal, 15 steps", _VARIBAD),
    "gridnav-heldout": FamilyRow(_GRIDNAV, "GridNavi with a fifth of the goals held out", _VARIBAD, {"held_out": 0.2}),
    "gridnav-dense": FamilyRow(_GRIDNAV, "GridNavi, paid by the distance to the goal", _HYPER, {"reward": "dense"}),
    "gridnav-show": FamilyRow(_GRIDNAV, "GridNavi, the goal is shown on the start cell", _HYPER, {"show": True}),
    "gridnav-bonus": FamilyRow(_GRIDNAV, "GridNavi with a bonus for new cells", _HYPER, {"visit_bonus": 0.1}),
    "gridnav-ring": FamilyRow(
        _GRIDNAV, "7×7 grid, centre start, goals on the border", _HYPER, {"size": 7, "start": "centre", "goals": "ring"}
    ),
    "gridnav-random": FamilyRow(_GRIDNAV, "GridNavi with a random start, any goal", _HYPER, {"start": "random"}),
    "gridnav-large": FamilyRow(_GRIDNAV, "25×25 grid, 50 steps", _HYPER, {"size": 25, "horizon": 50}),
    "gridnav-quadrants": FamilyRow(
        _GRIDNAV,
        "5×5 grid, goals in the upper right quadrant; ood: in the lower left one",
        _CONSISTENCY,
        {"start": "centre", "goals": "upper-right", "ood_goals": "lower-left"},
    ),
    # hall.py
    "hall": FamilyRow(_HALL, "corridor of 60 cells, one of 59 doors hides the goal", _HYPER),
    "hall-observed": FamilyRow(_HALL, "Hall, unchecked doors can be seen", _HYPER, {"observe_checked": True}),
    "hall-shaped": FamilyRow(
        _HALL, "Hall, bonus for new doors, the goal pays 5", _HYPER, {"visit_bonus": 0.1, "success_reward": 5.0}
    ),
    # darkroom.py
    "darkroom": FamilyRow(_DARKROOM, "9×9 dark room, centre start, 20 steps", _AD),
    "darkroom-hard": FamilyRow(
        _DARKROOM, "17×17 dark room, the goal pays once", _AD, {"width": 17, "height": 17, "ends_at_goal": True}
    ),
    "darkroom-cell": FamilyRow(_DARKROOM, "9×9 dark room, observed as a cell number", _AD_EPS, {"observation": "cell"}),
    "darkroom-tiny": FamilyRow(
        _DARKROOM, "3×3 dark room, 5 steps", _AD_EPS, {"width": 3, "height": 3, "horizon": 5, "observation": "cell"}
    ),
    "darkroom-dpt": FamilyRow(
        _DARKROOM,
        "10×10 dark room, corner start, 100 steps",
        _DPT,
        {"width": 10, "height": 10, "horizon": 100} | _RADT_ROOM,
    ),
    "darkroom-dicp": FamilyRow(_DARKROOM, "9×9 dark room, a tenth of the goals held out", _DICP, {"held_out": 0.1}),
    "darkroom-radt-20x20": FamilyRow(
        _DARKROOM, "20×20 dark room, 200 steps", _RADT, {"width": 20, "height": 20, "horizon": 200} | _RADT_ROOM
    ),
    "darkroom-radt-40x20": FamilyRow(
        _DARKROOM, "40×20 dark room, 800 steps", _RADT, {"width": 40, "height": 20, "horizon": 800} | _RADT_ROOM
    ),
    "darkroom-permuted": FamilyRow(
        _DARKROOM,
        "10×10 dark room, what the actions mean is hidden",
        _DPT,
        {"width": 10, "height": 10, "horizon": 100, "start": "corner"} | _PERMUTED,
    ),
    "darkroom-permuted-dicp": FamilyRow(
        _DARKROOM, "9×9 dark room, 50 steps, hidden meaning of actions", _DICP, {"horizon": 50} | _PERMUTED
    ),
    "darkroom-macro": FamilyRow(
        _DARKROOM,
        "9×9 dark room, 125 actions of three moves each",
        "Sinii et al. 2024 (Headless-AD)",
        {"macro": 3, "ends_at_goal": True},
    ),
    # keydoor.py
    "key-to-door": FamilyRow(_KEYDOOR, "9×9 grid, an unseen key, then an unseen door", _AD),
    "key-to-door-cell": FamilyRow(
        _KEYDOOR,
        "Key-to-Door, 40 steps, ends at the door, observed as a cell number",
        _AD_EPS,
        {"horizon": 40, "terminate_on_door": True, "start_on_key": False, "observation": "cell"},
    ),
    "key-to-door-amago": FamilyRow(
        _KEYDOOR, "Key-to-Door, ends at the door", "Grigsby et al. 2024 (AMAGO)", {"terminate_on_door": True}
    ),
    "key-to-door-radt": FamilyRow(
        _KEYDOOR,
        "10×10 Key-to-Door, corner start, the door keeps paying",
        _RADT,
        {"size": 10, "horizon": 100, "door_repeats": True} | _RADT_ROOM,
    ),
    # bandits.py, tabular.py, tmaze.py
    "bandit": FamilyRow("fledge.envs.bandits:Bandit", "10 Bernoulli arms, means U(0, 1)", _RL2, {"n_arms": 10}),
    "bandit-5": FamilyRow("fledge.envs.bandits:Bandit", "5 Bernoulli arms", _RL2, {"n_arms": 5}),
    "bandit-50": FamilyRow("fledge.envs.bandits:Bandit", "50 Bernoulli arms", _RL2, {"n_arms": 50}),
    "bandit-gaussian": FamilyRow(
        "fledge.envs.bandits:Bandit",
        "5 Gaussian arms, means U(0, 1), std 0.3",
        _DPT,
        {"n_arms": 5, "reward": "gaussian", "std": 0.3},
    ),
    "bandit-adversarial": FamilyRow(
        "fledge.envs.bandits:Bandit",
        "10 Bernoulli arms; odd arms pay in 95 % of tasks, even ones in ood",
        _AD,
        {"n_arms": 10, "bias": "odd-even"},
    ),
    "bandit-odd-even": FamilyRow(
        "fledge.envs.bandits:Bandit",
        "5 Bernoulli arms; odd arms pay in every task, even ones in ood",
        _CONSISTENCY,
        {"n_arms": 5, "bias": "odd-even", "usual_share": 1.0},
    ),
    "mdp": FamilyRow("fledge.envs.tabular:TabularMDP", "random MDPs, 10 states × 5 actions, 10 steps", _RL2),
    "mdp-tang": FamilyRow(
        "fledge.envs.tabular:TabularMDP",
        "nearly deterministic MDPs, 20 states × 5 actions",
        _TANG,
        {
            "n_states": 20,
            "n_actions": 5,
            "horizon": 20,
            "concentration": 0.001,
            "rewards": "uniform",
            "reward_noise": 0.0,
            "discount": 0.8,
        },
    ),
    "mdp-dice": FamilyRow(
        "fledge.envs.tabular:TabularMDP",
        "small MDPs for higher derivatives, 5 states × 4 actions",
        _DICE,
        {
            "n_states": 5,
            "n_actions": 4,
            "horizon": 50,
            "rewards": "state",
            "reward_noise": 0.0,
            "start": "uniform",
            "discount": 0.95,
        },
    ),
    "t-l": FamilyRow(
        "fledge.envs.tmaze:TMaze", "corridor of 100 cells, cue in the first", _AMRL, {"cues": (0,), "coins": "none"}
    ),
    "t-ln": FamilyRow("fledge.envs.tmaze:TMaze", "T-L with a coin at every step", _AMRL, {"cues": (0,)}),
    "t-lo": FamilyRow(
        "fledge.envs.tmaze:TMaze",
        "order of two cues",
        _AMRL,
        {"cues": (0, 98), "rule": "up-then-down", "coins": "none"},
    ),
    "t-lso": FamilyRow(
        "fledge.envs.tmaze:TMaze", "order, and coins", _AMRL, {"cues": (0, 2), "rule": "up-then-down", "matching": True}
    ),
    "t-ln-p1": FamilyRow("fledge.envs.tmaze:TMaze", "T-LN with the cue in the second cell", _SPLAGGER, {"cues": (1,)}),
    "t-agree": FamilyRow(
        "fledge.envs.tmaze:TMaze", "do two cues agree? then down", _SPLAGGER, {"cues": (1, 50), "rule": "agree"}
    ),
    "t-latent": FamilyRow(
        "fledge.envs.tmaze:TMaze", "no cue: is the coin biased? then up", _SPLAGGER, {"cues": (), "coins": "latent"}
    ),
    "t-ls-p1": FamilyRow(
        "fledge.envs.tmaze:TMaze", "each coin must be matched to move on", _SPLAGGER, {"cues": (1,), "matching": True}
    ),
    # minemaze.py, planning.py
    "mc-ls": FamilyRow(_MINEMAZE, "a colour, 16 rooms seen in pictures, then the turn it asks for", _AMRL),
    "mc-lsn": FamilyRow(_MINEMAZE, "MC-LS with 10 rooms and noisy pictures", _AMRL, {"rooms": 10, "noise": 0.05}),
    "mc-lso": FamilyRow(
        _MINEMAZE, "MC-LS with 10 rooms and the order of two colours", _AMRL, {"rooms": 10, "order": True}
    ),
    "mc-lsh": FamilyRow(_MINEMAZE, "MC-LS whose colour is hidden: the end has to tell", _SPLAGGER, {"hidden": True}),
    "planning": FamilyRow(_PLANNING, "3×3 torus of unknown symbols, goals shown as symbols", _SPLAGGER),
    "planning-just-goal": FamilyRow(
        _PLANNING, "3×3 torus, nothing is seen but being on the goal", _SPLAGGER, {"observation": "just-goal"}
    ),
    "point-nav": FamilyRow(
        "fledge.envs.pointnav:PointNav", "2D navigation to a goal on the unit circle, −distance", _CONSISTENCY
    ),
    "point-nav-square": FamilyRow(
        "fledge.envs.pointnav:PointNav",
        "2D navigation to a goal in a square, ends on it",
        _MAML,
        {"goals": "square", "action_limit": 0.1, "step_size": 1.0, "stop_within": 0.01},
    ),
    "point-nav-sparse": FamilyRow(
        "fledge.envs.pointnav:PointNav", "2D navigation, paid near the goal", _CONSISTENCY, {"reward": "sparse"}
    ),
    "point-nav-arcs": FamilyRow(
        "fledge.envs.pointnav:PointNav",
        "2D navigation, goals on the right arc; in ood on the left one",
        _CONSISTENCY,
        {"goals": "right", "ood_goals": "left"},
    ),
    "point-nav-arcs-sparse": FamilyRow(
        "fledge.envs.pointnav:PointNav",
        "2D navigation paid near the goal, on the right arc; ood: on the left",
        _CONSISTENCY,
        {"goals": "right", "ood_goals": "left", "reward": "sparse"},
    ),
    "sparse-point": FamilyRow(
        "fledge.envs.pointnav:PointNav",
        "sparse point robot, goals on the upper half circle, moves of 0.05",
        _HYPER,
        {"goals": "upper", "reward": "sparse", "action_limit": 0.05, "step_size": 1.0},
    ),
    "sparse-point-varibad": FamilyRow(
        "fledge.envs.pointnav:PointNav",
        "sparse point robot, goals on the upper half circle, moves of 0.1",
        _VARIBAD,
        {"goals": "upper", "reward": "sparse"},
    ),
    "semicircle": FamilyRow(
        "fledge.envs.pointnav:Semicircle", "a cart that steers to a hidden point of a half circle", _HYPER
    ),
    # goalmaze.py
    "goal-maze": FamilyRow("fledge.envs.goalmaze:GoalMaze", "3×3 room, a good and a bad goal that look alike", _META),
    "goal-maze-5": FamilyRow(
        "fledge.envs.goalmaze:GoalMaze", "5×5 room, a good and a bad goal", _META, {"side": 5, "horizon": 16}
    ),
    # cheetah.py, ant.py, random_bodies.py: MuJoCo
    "cheetah-dir": FamilyRow("fledge.envs.cheetah:CheetahDir", "half-cheetah, run left or right", _VARIBAD),
    "cheetah-vel": FamilyRow("fledge.envs.cheetah:CheetahVel", "half-cheetah, run at a hidden speed", _VARIBAD),
    "hop": FamilyRow("fledge.envs.cheetah:Hop", "half-cheetah, hold the torso at a hidden height", _HYPER),
    "hop-walk": FamilyRow("fledge.envs.cheetah:HopWalk", "half-cheetah, run to a side or hold a height", _HYPER),
    "ant-dir": FamilyRow("fledge.envs.ant:AntDir", "ant, run forward or backward", _VARIBAD),
    "ant-dir-radian": FamilyRow(
        "fledge.envs.ant:AntDir", "ant, run at +1 or −1 radian, as released code does", _HYPER, {"headings": "radian"}
    ),
    "ant-goal": FamilyRow("fledge.envs.ant:AntGoal", "ant, go to a hidden place, −distance", _VARIBAD),
    "ant-goal-sparse": FamilyRow(
        "fledge.envs.ant:AntGoal", "ant, go to a hidden place, paid near it", _HYPER, {"reward": "sparse"}
    ),
    "humanoid-dir": FamilyRow("fledge.envs.ant:HumanoidDir", "humanoid, run along a hidden heading", _VARIBAD),
    "walker-rand": FamilyRow(
        "fledge.envs.random_bodies:WalkerRand", "walker with a hidden body (65 multipliers)", _HYPER
    ),
    "hopper-rand": FamilyRow(
        "fledge.envs.random_bodies:HopperRand", "hopper with a hidden body (41 multipliers)", _PROMP
    ),
}
"""Name → row. A new family is one file and one row here."""
