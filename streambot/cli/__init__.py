"""The command line: one module a command, imported when it is asked for.

stdout is data, stderr is narration. No rule of the market lives here.
"""
