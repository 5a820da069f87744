"""Plaid: likelihood-based continuous diffusion, as interchangeable parts."""
