//go:build prof

package main

import (
	"os"
	"runtime"
	"runtime/pprof"
	"time"
)

func init() {
	if f := os.Getenv("PROF_CPU"); f != "" {
		w, _ := os.Create(f)
		pprof.StartCPUProfile(w)
		go func() { d, _ := time.ParseDuration(os.Getenv("PROF_FOR")); time.Sleep(d); pprof.StopCPUProfile(); w.Close() }()
	}
	if f := os.Getenv("PROF_MEM"); f != "" {
		runtime.MemProfileRate = 4096
		go func() {
			d, _ := time.ParseDuration(os.Getenv("PROF_FOR"))
			time.Sleep(d)
			w, _ := os.Create(f)
			runtime.GC()
			pprof.WriteHeapProfile(w)
			w.Close()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			println("heap", m.HeapAlloc>>20, "sys", m.Sys>>20, "stack", m.StackInuse>>20, "idle", m.HeapIdle>>20, "released", m.HeapReleased>>20, "goroutines", runtime.NumGoroutine())
		}()
	}
}
