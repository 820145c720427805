"""What a network that learned tic-tac-toe from its rules gains from search when it plays, by simulations.

omnia reproduce alphazero
"""

from train.reproduce.table import Better, Metric, Row, Shared, Table, training

SIMULATIONS = (1, 4, 16, 64)


def get_table() -> Table:
    return Table(
        title="AlphaZero: search against none",
        paper="Silver et al. 2017 (AlphaGo Zero), figure 6b; Silver et al. 2017 (AlphaZero), figure 2",
        claim="The same network plays better with search than without, and better the more simulations it has.",
        metrics=(
            Metric("lost_perfect", "games lost to perfect play", "share", digits=4),
            Metric("score_random", "score against random moves", lower_is_better=False),
        ),
        shared=(Shared("network", (training("configs/rl/tictactoe.py", "--steps 20"),)),),
        rows=tuple(
            Row(
                f"simulations_{count}",
                "the network's own choice" if count == 1 else f"{count} simulations a move",
                (f"omnia evaluate {{network}} --json --change match_simulations={count}",),
                x=count,
            )
            for count in SIMULATIONS
        ),
        claims=(
            *(Better(f"simulations_{count}", "simulations_1") for count in SIMULATIONS[1:]),
            Better("simulations_64", "simulations_16"),
        ),
        x="simulations a move",
        note="Tic-tac-toe, 20 steps of self-play, so that the network alone is far from perfect; 100 games from each side.",
    )
