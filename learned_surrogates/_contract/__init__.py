"""What a task owes the loss: its hooks as the loss calls them, and `check_task`, which asks more.

Hooks are called through `hooks` alone, which checks what comes back. `check_task` asks `contracts`
of every task, and those in `representation` of one whose surrogate is fitted to values.
"""
