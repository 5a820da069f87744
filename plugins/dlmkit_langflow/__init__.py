"""LangFlow's schedule and objective, as interchangeable parts."""
