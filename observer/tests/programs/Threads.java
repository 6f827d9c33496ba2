// Threads that wait in each of the ways that Java has.
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.locks.LockSupport;
import java.util.concurrent.locks.ReentrantLock;

public class Threads {
    static void start(String name, Runnable body) {
        Thread thread = new Thread(body, name);
        thread.setDaemon(true);
        thread.start();
    }

    public static void main(String[] args) throws Exception {
        Object monitor = new Object();
        ReentrantLock lock = new ReentrantLock();
        CountDownLatch held = new CountDownLatch(2);
        start("park", () -> { while (true) LockSupport.park(); });
        start("hold-lock", () -> { lock.lock(); held.countDown(); while (true) LockSupport.park(); });
        start("hold-mon", () -> {
            synchronized (monitor) {
                held.countDown();
                while (true) LockSupport.park();
            }
        });
        held.await();
        start("lock", lock::lock);
        start("enter", () -> { synchronized (monitor) { } });
        start("wait", () -> {
            Object own = new Object();
            synchronized (own) {
                try { own.wait(); } catch (InterruptedException e) { }
            }
        });
        start("sleep", () -> { try { Thread.sleep(10000000); } catch (InterruptedException e) { } });
        Executors.newFixedThreadPool(1).submit(() -> { });
        Thread.sleep(10000000);
    }
}
