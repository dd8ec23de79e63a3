"""How a run draws its votes, and how they survive kills, interruptions and many processes."""
