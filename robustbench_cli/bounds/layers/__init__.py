"""Rules for layers and functions: each module registers some, and all are found by import."""
