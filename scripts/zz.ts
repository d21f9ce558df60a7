import { buildPackage } from './lib/deb.ts';
import { testImage } from '../test/vm/lib/test-image.ts';
import { installedDisk } from '../test/vm/lib/installed-disk.ts';
const say = (l: string) => console.error(new Date().toISOString(), l);
const image = await testImage(await buildPackage('/tmp/w/c/build'), say);
console.log(image, await installedDisk(image, say));
