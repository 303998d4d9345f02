"""What the programs need of the machine: safe writing, compile cache, devices and memory."""
