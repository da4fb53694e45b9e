"""Evaluation that can say "no effect": arms, controls, costs and intervals side by side."""
