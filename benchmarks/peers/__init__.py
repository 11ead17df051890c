"""Paceline beside other engines, each in an environment and a process of its own: `benchmarks/peers/run`.

run       the command                    process   an adapter's process, asked one turn at a time
recipes   what each peer consists of     measure   rounds in which everybody takes turns
install   environments, in the cache     results   samples kept, speeds and token counts made of them
targets   checkpoints that all load      report    the table, Markdown and JSON
protocol  what goes over the pipe        adapters  one file for each peer
"""
