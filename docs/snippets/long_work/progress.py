from amphora import AmqpRpcClient

client = AmqpRpcClient("reports")
with client.stream(idle_timeout=60).report_step_by_step("May") as steps:
    for step in steps:
        progress = f"day {step['day']} of {step['of']}"
print(progress)  # day 30 of 30
print(steps.result)  # May was a good month
