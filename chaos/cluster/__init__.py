"""An experiment on a Ray cluster: what its director, its agents and its load do there, apart from Ray itself."""
