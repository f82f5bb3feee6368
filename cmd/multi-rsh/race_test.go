//go:build race

package main

// raced tells whether the race detector is at work, which needs several times the memory.
const raced = true
