"""What to run: the workload file, the image's contract, and the plan that combines them.

`loader.load(path)` reads and checks a workload file, `contract.promise(...)` reads what the image promises, and
`plan.plan(document, promise)` merges both into the frozen `plan.Workload` that the rest of the runtime uses.
"""
