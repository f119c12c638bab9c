package storage
import ("testing";"fmt";"math/rand/v2";"github.com/millrace/millrace/internal/ids";"time";"os";"strconv";"sync";"sync/atomic";"syscall"
"github.com/cockroachdb/pebble/v2")
func env(n string, d int) int { if v,err:=strconv.Atoi(os.Getenv(n)); err==nil {return v}; return d }
func TestTune(t *testing.T){
	if os.Getenv("TUNE")=="" {t.Skip()}
	o := DefaultOptions()
	o.MemTableBytes = env("MEM",64)<<20
	tuneHook = func(po *pebble.Options){
		po.BytesPerSync = env("BPS",4096)<<10
		po.WALBytesPerSync = env("WBPS",0)<<10
		po.MemTableStopWritesThreshold = env("STOP",4)
		if v:=env("TGT0",0); v>0 { po.TargetFileSizes[0]=int64(v)<<20 }
		if v:=env("TGT",0); v>0 { for i:=1;i<7;i++{po.TargetFileSizes[i]=int64(v)<<20} }
		if v:=env("LBASE",0); v>0 { po.LBaseMaxBytes=int64(v)<<20 }
	}
	s,err := OpenLog(t.TempDir()+"/s", o)
	if err!=nil{t.Fatal(err)}
	const size=64<<10
	payload := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(payload)
	total := env("MB",2000)
	run:=func(name string, writers, per int){
		var ru0,ru1 syscall.Rusage; syscall.Getrusage(0,&ru0)
		start:=time.Now(); m0:=s.Metrics()
		var n atomic.Int64
		var wg sync.WaitGroup
		var worst atomic.Int64
		for w:=range writers { wg.Go(func(){
			batch := s.NewBatch()
			for {
				i:=n.Add(1); if i*int64(per)*64/1024 > int64(total) {return}
				batch.Reset()
				for j := range per {
					k, v := batch.SetDeferred(LogKeyLen, size)
					AppendLogKey(k[:0], ids.PartitionID((w*7+j)%32), 1, ids.Offset(i*1000+int64(j)))
					copy(v, payload)
				}
				st:=time.Now()
				if err:=s.Commit(batch, true);err!=nil{panic(err)}
				if d:=int64(time.Since(st)); d>worst.Load(){worst.Store(d)}
			}})}
		wg.Wait()
		d:=time.Since(start); m:=s.Metrics(); syscall.Getrusage(0,&ru1)
		cpu:=time.Duration(ru1.Utime.Nano()+ru1.Stime.Nano()-ru0.Utime.Nano()-ru0.Stime.Nano())
		fmt.Printf("%s: %.0f MB/s cpu %.2fs/GB syncs %d share %.2f worst %v\n", name, float64(total)/d.Seconds(), cpu.Seconds()/float64(total)*1024, m.Syncs-m0.Syncs, float64(m.SyncTime-m0.SyncTime)/float64(d), time.Duration(worst.Load()))
	}
	run("16w64K",16,1)
	run("1w1M",1,16)
	run("1w4M",1,64)
	fmt.Printf("%+v\n", s.Metrics())
	s.Close()
}
