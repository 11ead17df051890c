"""`benchmarks/plot.py`: results read back from their files, as tables, as text plots, and as a PNG or SVG.

results   files, and where they differ in origin     charts   what is drawn, as data
steps     the view of `bench step`                   text     charts in a terminal
decodes   the view of `bench decode`                 figure   charts by matplotlib

`accounts` draws what benchmarks/accounts.py has measured, without a file in between.

A new kind of result is one file with a function from results to a `View`, and a line in views.py.
"""
